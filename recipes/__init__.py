"""Complete recipes, shipped with the package."""
