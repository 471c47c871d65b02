"""Sample a trained model, decode the samples to CIFs, and judge them.

python sample.py checkpoint=RUN/checkpoints/last.ckpt num_samples=1000 out=DIR
python sample.py images=DIR/images.safetensors -m decode.atom_clusters=2,3,4 decode.coordinate_clusters=4,6,8
"""

import sys

if __name__ == "__main__":
    # Imported here, because every worker process imports this file.
    from crystens.cli import configured

    configured("sample", sys.argv[:1], sys.argv[1:])
