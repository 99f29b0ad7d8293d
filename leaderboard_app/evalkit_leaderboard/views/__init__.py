"""One module a page, each with `render(context)`.

Not named `pages`: Streamlit would take the files of such a folder for pages of its own.
"""
