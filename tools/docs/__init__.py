"Makes the site from the notebooks and the package: `tools/build_docs.py` calls what lies here"
