"""The convergence theory as typed functions: windows, gradients, rates, norms, floors, and a certificate."""

from gsae_lib.theory.certificate import Certificate, Quantity, certify
from gsae_lib.theory.gradient import expected_gradient, gradient_alignment, horizontal, riemannian_step
from gsae_lib.theory.population import Population
from gsae_lib.theory.rates import equilibrium_norm, hessian_spectrum
from gsae_lib.theory.windows import Window, predicted_success, support_recovery_windows

__all__ = [
    "Certificate",
    "Population",
    "Quantity",
    "Window",
    "certify",
    "equilibrium_norm",
    "expected_gradient",
    "gradient_alignment",
    "hessian_spectrum",
    "horizontal",
    "predicted_success",
    "riemannian_step",
    "support_recovery_windows",
]
