"""The client's side: files up to a service and down from it, whole and checked, also across breaks; and folders.

It needs aiohttp, the standard library and sfss.errors, nothing else of sfss, so that it runs where no service does.

::

    commands, run         sfss put, get, rm, stat: options; what they do, words, exit statuses    (simple_client.py)
       |
     tree                 folders and many files: what is to go where, and jobs that see to it
       |
    sending, receiving    one file, up or down: pieces, digests, what to do after a break
       |
    api, uploads          the service's HTTP; uploads, which speak tus.    api is the one place that knows aiohttp

``local`` reads local files; ``resume`` keeps what outlives a process; ``retry`` says whether and when to try again;
``progress`` draws the bar; ``words`` are what is said on the terminal; ``failures`` is what goes wrong.

``bench_run`` is ``sfss bench``, ``bench`` its requests (and those of ``simple_client.py --bench``), ``bench_processes``
several processes of them, ``figures`` what they come to.
"""
