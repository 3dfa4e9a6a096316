"""The server behind `yolo9000 serve`: a JSON API and two pages around one detector.

    limits.py     what a request may cost, and the refusal that says so
    bodies.py     reads a request's body into pictures within the limits
    decoder.py    the process that decodes pictures; decoding.py keeps some of them under a time limit
    batching.py   pictures that arrive together go through the network together
    answers.py    what is answered for a batch
    guard.py      what is checked of every request, and what is said with every answer
    schema.py     the shapes of answers, for the OpenAPI description
    metrics.py    counts and times in Prometheus' text form
    detecting.py, browsing.py, pages.py   the routes
    app.py        all of it together; server.py runs it

Imported by the command line and by the decoding process: nothing heavy here.
"""
