"""`engine selftest`: an engine beside CTranslate2, on the machine of whoever runs it."""
