"""Train a model of crystals, sample it, and judge the samples.

python train.py                                             a small default, on any laptop
python train.py model=wgan trainer.max_epochs=200
python train.py -m model=gan,wgan,diffusion seed=1,2,3
python train.py experiment=paper_wgan data=cif_folder data.path=DIR
python train.py resume=RUN                                  continue an interrupted run
python train.py --cfg job                                   print every key that can be set
"""

import sys

if __name__ == "__main__":
    # Imported here, because every worker process imports this file.
    from crystens.cli import configured

    configured("train", sys.argv[:1], sys.argv[1:])
