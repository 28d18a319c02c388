"""``postel install``: writes systemd units for the parts of Postel that run on this host, and takes them out again.

:mod:`~postel.services.units` is what is written, :mod:`~postel.services.install` says what is to be done with what is
there already, :mod:`postel.steps` does it, :mod:`~postel.services.commands` speaks of it.
"""
