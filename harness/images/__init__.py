"""Images: data sets and labels, preprocessing, the crop cache, the feed, generated images."""
