"""``postel plugins``: puts Postel's plugins into the mail servers of this host, and takes them out again.

:mod:`~postel.plugins.bundle` is what a plugin consists of, :mod:`~postel.plugins.servers` what a server is and where
its plugin and settings go, :mod:`~postel.plugins.zone_mta` and :mod:`~postel.plugins.haraka` find theirs,
:mod:`~postel.plugins.install` says what is to be done, :mod:`postel.steps` does it.
"""
