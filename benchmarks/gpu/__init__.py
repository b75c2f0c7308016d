"""Everything that only a GPU can show, in one short command: ``make gpu``.

The parts (:mod:`benchmarks.gpu.parts`) run one after another, each in its own process with a time limit, so that a
crash or a lack of memory costs one part only. The measurements of a part are saved when it ends: a second run continues
with the missing parts. The modules that run parts import nothing but the standard library.
"""
