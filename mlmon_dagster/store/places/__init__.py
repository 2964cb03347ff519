"""Where bytes lie: folders and object storage behind one interface, and room on the disk.

In: a path or a URL. Out: files, listings, and conditional writes.
"""
