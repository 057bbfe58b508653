"""The scorers of other suites, told apart by protocol.

| protocol | what it is |
|---|---|
| `paper` | the metrics behind the paper's digits, replies read carefully (`kd_evalsuite.judges`) |
| `cambrian` | the scripts of Cambrian-1 at 539ffc3 |
| `lmms` | lmms-eval at 75571cf |
| `vlmevalkit` | VLMEvalKit at e8e78f0 with `exact_matching`, that is without a language model as a judge |
| `official` | the benchmark's own script, where it has one |

All but `paper` are here to reproduce numbers, so they keep what these suites do, mistakes included; each docstring
says what that is. One thing is never kept: where a suite guesses at random, or asks a language model that is not there,
a reply is unread and wrong, since a score must not depend on a seed.
"""
