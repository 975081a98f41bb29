"""Reading and writing files of rows; atomic writing."""
