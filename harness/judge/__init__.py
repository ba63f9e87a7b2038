"""Rules: measurement x reference -> verdict; what spans cases; causes."""
