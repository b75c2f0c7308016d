"""Everything that needs a GPU to be shown, in one short command: ``make gpu``.

The parts (:mod:`benchmarks.gpu.parts`) run one after the other, each in a process of its own with a time limit, so that
a crash or a lack of memory costs one part only. What a part has measured is saved as it ends: a second run goes on
with the parts that are missing. The modules that run parts import nothing but the standard library.
"""
