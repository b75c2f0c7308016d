"""Chaos: the worker pool on real processes, a real server and real stores, with faults under it.

``python -m chaoslab --seed 1`` (``make chaos``) runs the long form and prints a table; ``test_chaos.py`` runs the short
form. What each module is for:

=================  ==================================================================================================
``workloads``      a small lab's package: december's own trainers slowed down, trivial ones, ones that kill the worker
``journal``        what the trainings themselves write down, independent of the database
``laboratory``     a private server, and benches on it: a schema, a store, a folder, worker processes
``crew``           keeps a number of workers running
``watching``       follows leases and reservations in the database; triggers that count every insert
``stored``         reads what is stored, without DataJoint, and compares it with uninterrupted trainings
``faults``         kills, outages of the server and of stores, damaged files
``scenarios``      one function for each row of the table
``figures``        checks and figures, and how they are printed
=================  ==================================================================================================
"""
