from .base import ItemHit as ItemHit, ItemResults as ItemResults, Scores as Scores, System as System
from .item import Item as Item
from .items import read_items as read_items
from .lesions.mask_predictor import load_mask_predictor as load_mask_predictor
from .lesions.similarity import LesionDescriber as LesionDescriber, LesionSimilarity as LesionSimilarity
from .mean_vector import MeanVector as MeanVector
from .patch_features import PatchDescriber as PatchDescriber, Tiles as Tiles, WholePicture as WholePicture
from .sish_system import Sish as Sish
from .slide_similarity import SlideSimilarity as SlideSimilarity
from .smily.regions import RegionHit as RegionHit, RegionQuery as RegionQuery, Smily as Smily
from .training.modules import (
    train_code_generator as train_code_generator,
    train_mask_predictor as train_mask_predictor,
)
from .xray.codes import XrayCodes as XrayCodes
from .xray.generator import load_code_generator as load_code_generator
from .yottixel import Yottixel as Yottixel
