"""What every page and export shares: formats of figures, looks of outcomes, banners, escaping."""
