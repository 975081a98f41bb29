"""What a bundle is on disk: read and checked before anything runs."""
