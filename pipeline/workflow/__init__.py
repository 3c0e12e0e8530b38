"""Read ComfyUI's workflow files, and convert them to the API format and to files of conf/graph/."""
