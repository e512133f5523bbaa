from .calibration import calibrate as calibrate
from .contrast import contrast_loss as contrast_loss
from .encoder import Encoded as Encoded, Encoder as Encoder
from .model import (
    PRESETS as PRESETS,
    VQVAE as VQVAE,
    VQVAEConfig as VQVAEConfig,
    from_unit as from_unit,
    to_unit as to_unit,
)
from .p4m import GroupConv as GroupConv, LiftingConv as LiftingConv
from .pretrained import load_encoder as load_encoder, save_weights as save_weights
from .quantizer import VectorQuantizer as VectorQuantizer, perplexity as perplexity
from .stain import jitter_stain as jitter_stain
from .timm_network import TimmNetwork as TimmNetwork
from .views import Views as Views
