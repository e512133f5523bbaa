from .annotations import Annotation as Annotation, read_annotations as read_annotations
from .configuration import Setting as Setting, read_settings as read_settings
from .errors import (
    AnnotationsError as AnnotationsError,
    EncoderMismatchError as EncoderMismatchError,
    IndexCorruptError as IndexCorruptError,
    IndexExistsError as IndexExistsError,
    IndexFormatError as IndexFormatError,
    IndexLockedError as IndexLockedError,
    IndexNotFoundError as IndexNotFoundError,
    LabelsError as LabelsError,
    LabelsNotFoundError as LabelsNotFoundError,
    MissingMppError as MissingMppError,
    MissingPackageError as MissingPackageError,
    OutputError as OutputError,
    ParameterError as ParameterError,
    ParameterTypeError as ParameterTypeError,
    QueryError as QueryError,
    SishError as SishError,
    SlideError as SlideError,
    SlideNotFoundError as SlideNotFoundError,
    SlideOpenError as SlideOpenError,
    SlideReadError as SlideReadError,
    StoreError as StoreError,
    UnknownSlideError as UnknownSlideError,
    WeightsError as WeightsError,
    WeightsNotFoundError as WeightsNotFoundError,
)
from .evaluation import evaluate as evaluate
from .explanation import Explanation as Explanation
from .heatmap import Heatmap as Heatmap
from .index.params import SearchParams as SearchParams
from .archives import verify as verify
from .plans import AddPlan as AddPlan, PlannedSlide as PlannedSlide
from .qupath import write_geojson as write_geojson
from .recipe import Recipe as Recipe
from .refinement import Concept as Concept
from .report import write_report as write_report
from .results import (
    AddReport as AddReport,
    Hit as Hit,
    PatchPair as PatchPair,
    Query as Query,
    RelabelReport as RelabelReport,
    Results as Results,
)
from .shard_merge import MergeReport as MergeReport, merge as merge, plan_merge as plan_merge
from .slide_index import Index as Index
from .slides.region import Box as Box
from .slide_map import SlideMap as SlideMap
from .slides.slide import Slide as Slide, open_slide as open_slide
from .stored_patches import SlidePatches as SlidePatches
from .tile_codes import TileCodes as TileCodes
from .version import __version__ as __version__
