-- What the api calls: authentication, and one function per hot path.
SELECT;
