"""What data sets of others look like: each format's module makes records of its entries."""
