"""A web page to try trained networks on images; needs Gradio (the extra ``demo``)."""
