"""What the doctor complains of."""


def messages(document, grade):
    return [problem["message"] for problem in document["problems"] if problem["grade"] == grade]
