"""One folder a platform; what they share; the Protocol they all satisfy."""
