"""Archives of many files: encoded, scored and calibrated by processes of one machine, by Spark or by Ray."""
