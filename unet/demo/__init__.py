"""A page in the browser to try trained networks on pictures; needs Gradio (the extra ``demo``)."""
