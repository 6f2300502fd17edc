"""Images with labels: what a model of your own is trained on where text does not fit.

`load_images` has the dataset of a source, `image_batch` and `image_eval` what a trial takes of it, without torch; the
same as tensors are `hpsweep.images.batches`.

A source is a string, and the `data` field of a trial:

    glyphs?size=28&classes=62&count=50000               digits and letters, drawn from matplotlib's fonts; no download
    images:FOLDER[?size=28&channels=1]                  FOLDER/CLASS/*.png, .jpg and .jpeg
    npz:PATH?images=x&labels=y[&size=28&channels=1]     two arrays of a .npz
    npy:PATH?labels=PATH[&size=28&channels=1]           two .npy files
    parquet:PATH?image=image&label=label[&size=28&channels=1]
                                                        encoded images of a .parquet file, or of a folder of them, as
                                                        Hugging Face's datasets store them: the option `image` tells
                                                        them from text

PATH and options are written as those of text: `hpsweep.proxy.data`. Arrays are uint8, (images, height, width) or
(images, height, width, channels). Labels are whole numbers from 0 on, or text, whose values are numbered in sorted
order, as the folders of classes are.

`size=28` makes every image 28 x 28: the middle square, scaled with antialiasing. `channels=1` makes it gray and
`channels=3` RGB. Without them images stay as they are, and all have to be alike. Photographs are turned as their EXIF
data says, and transparent parts become white.

Held out for validation: images whose SHA-256 (of the file, or of the array's bytes) begins with a byte divisible by 16,
about one in sixteen, so that copies stay on one side; of glyphs, every sixteenth.
"""

from hpsweep.images.dataset import ImageDataset as ImageDataset
from hpsweep.images.dataset import check_images as check_images
from hpsweep.images.dataset import image_batch as image_batch
from hpsweep.images.dataset import image_eval as image_eval
from hpsweep.images.dataset import scaled_images as scaled_images
from hpsweep.images.sources import load_images as load_images
from hpsweep.units import is_images as is_images
