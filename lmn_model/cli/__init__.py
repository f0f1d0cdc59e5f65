"""The command ``lmn``; :mod:`.main` is its entry.

Arguments are declared in :mod:`.command_arguments`, parsed in :mod:`.arguments` and turned into settings in
:mod:`.run_settings`, all before torch is loaded. Then :mod:`.execute` runs one of :mod:`.commands` and turns an error
into one line and an exit code.
"""
