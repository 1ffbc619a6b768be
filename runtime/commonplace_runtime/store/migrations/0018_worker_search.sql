-- Worker-style search by the index of 0016.
SELECT;
