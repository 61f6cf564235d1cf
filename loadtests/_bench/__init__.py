"""`make bench`: how fast and how fair a server is, measured and computed.

    python -m loadtests._bench run         servers side by side, under wrk
    python -m loadtests._bench report      table and plot of a run, written again
    python -m loadtests._bench simulate    our dispatch beside others, in a model
    python -m loadtests._bench predict     the real server beside the model
    python -m loadtests._bench pages       what pages cost, by connections
    python -m loadtests._bench pinned      what waits behind a pinned worker
    python -m loadtests._bench instructions    what observation costs, counted
    python -m loadtests._bench files       what a file costs, beside nginx

Reading order: _workloads (what is asked), _servers (who is asked), _cell (one
measurement), _run (rounds of them), _figures and _report (what came of it);
_model (the simulation), _curves and _prediction (what it is for);
_instructions (two builds under callgrind); _files (a folder, beside nginx).

Every file's name begins with an underscore: locust runs all others here.
"""
