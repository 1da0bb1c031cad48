"""``/openapi.json``: what this service takes and answers, as an OpenAPI 3.1 document, of the configuration that it has.

The document is put together from what the service itself goes by, so that it can't say anything else: its routes, the
table of rights (``web/access.py``), that of problems (``web/problems.py``), the settings' limits, the types that are
decoded and encoded. What no table has is said here, once: ``operations.py`` is the table to read first.

=================  ===============================================================================================
``offer.py``       what of the settings it depends on; no name, path or secret is among it
``operations.py``  what each route takes, and answers when all is well; which errors it may come to
``parameters.py``  parameters and headers
``schemas.py``     what comes and goes as JSON
``failures.py``    errors as responses
``document.py``    puts it together
``handlers.py``    serves it
=================  ===============================================================================================

Tests compare it with the routes, with every answer that any test gets of a front in its own process, and, by
schemathesis, with what a running service does.
"""
