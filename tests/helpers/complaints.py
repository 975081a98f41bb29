"""What the doctor found."""


def messages(document, grade):
    return [finding["message"] for finding in document["findings"] if finding["grade"] == grade]
