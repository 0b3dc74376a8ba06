"""The works that the methods section may cite, each as (text, DOI)."""

from __future__ import annotations

KUMAR = (
    "Kumar, S., Sumers, T. R., Yamakoshi, T., Goldstein, A., Hasson, U., Norman, K. A., "
    "Griffiths, T. L., Hawkins, R. D., & Nastase, S. A. (2024). Shared functional specialization "
    "in transformer-based language models and the human brain. Nature Communications, 15, 5523.",
    "10.1038/s41467-024-49173-5",
)
HIMALAYA = (
    "Dupré la Tour, T., Eickenberg, M., Nunez-Elizalde, A. O., & Gallant, J. L. (2022). "
    "Feature-space selection with banded ridge regression. NeuroImage, 264, 119728.",
    "10.1016/j.neuroimage.2022.119728",
)
TIKHONOV = (
    "Nunez-Elizalde, A. O., Huth, A. G., & Gallant, J. L. (2019). Voxelwise encoding models with "
    "non-spherical multivariate normal priors. NeuroImage, 197, 482-492.",
    "10.1016/j.neuroimage.2019.04.012",
)
FDR = (
    "Benjamini, Y., & Hochberg, Y. (1995). Controlling the false discovery rate: a practical and "
    "powerful approach to multiple testing. Journal of the Royal Statistical Society B, 57, "
    "289-300.",
    "10.1111/j.2517-6161.1995.tb02031.x",
)
NARRATIVES = (
    'Nastase, S. A., Liu, Y.-F., Hillman, H., et al. (2021). The "Narratives" fMRI dataset for '
    "evaluating models of naturalistic language comprehension. Scientific Data, 8, 250.",
    "10.1038/s41597-021-01033-3",
)
PERMUTATION = (
    "Phipson, B., & Smyth, G. K. (2010). Permutation p-values should never be zero: calculating "
    "exact p-values when permutations are randomly drawn. Statistical Applications in Genetics "
    "and Molecular Biology, 9, 39.",
    "10.2202/1544-6115.1585",
)
SIGNS = (
    "Winkler, A. M., Ridgway, G. R., Webster, M. A., Smith, S. M., & Nichols, T. E. (2014). "
    "Permutation inference for the general linear model. NeuroImage, 92, 381-397.",
    "10.1016/j.neuroimage.2014.01.060",
)
SCHAEFER = (
    "Schaefer, A., Kong, R., Gordon, E. M., et al. (2018). Local-global parcellation of the human "
    "cerebral cortex from intrinsic functional connectivity MRI. Cerebral Cortex, 28, 3095-3114.",
    "10.1093/cercor/bhx179",
)
OASM = (
    "Feghhi, E., Hadidi, N., Song, B., Blank, I. A., & Kao, J. C. (2024). What are large language "
    "models mapping to in the brain? A case against over-reliance on brain scores. "
    "arXiv:2406.01538.",
    "10.48550/arXiv.2406.01538",
)
