"""What was drawn of an epoch -> tables, and a gallery of static pages that open from disk."""

from explain.gallery.pages import write_pages
from explain.gallery.sheets import write_cluster_pictures
from explain.gallery.tables import write_tables
from explain.gallery.why import write_why

__all__ = ["write_cluster_pictures", "write_pages", "write_tables", "write_why"]
