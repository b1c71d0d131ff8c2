-- The seed of every random choice in the tests: SEED from the environment, else a fixed one. The summary prints it.
return tonumber(os.getenv("SEED")) or 20260501
