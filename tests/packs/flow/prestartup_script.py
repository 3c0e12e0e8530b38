import os

os.environ["LATENTGRID_FLOW_PRESTARTUP"] = "done"
