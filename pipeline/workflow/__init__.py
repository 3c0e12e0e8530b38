"""ComfyUI's workflow files: reading them, and converting them to the API format and to a graph of conf/graph/."""
