"""Files of rows in and out, written whole or not at all."""
