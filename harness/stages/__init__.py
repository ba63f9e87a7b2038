"""One file for each stage; the store; the pipeline that chains them."""
