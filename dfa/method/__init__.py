"""The method (section 3 of the paper). `EQUATIONS` lists the code that computes each equation."""

# Number of the equation in the paper -> names in this folder, as module.name.
EQUATIONS = {
    1: ("face.FaceModel.vertices", "face.FaceModel.landmarks", "tracking.Fit"),  # 3DMM
    2: ("disentangle.swap_loss",),  # L_rec: mouth and eyes of two faces, swapped
    3: ("sync.contrastive_loss",),  # L_con: aligned and non-aligned audio-mouth pairs
    4: ("gpvae.AttributeVAE.encode",),  # mean and covariance of the posterior of z
    5: ("gpvae.posterior_sample",),  # the posterior N(μ, K), and a sample of it
    6: ("gpvae.AttributeVAE.distance",),  # reconstruction
    7: ("gpvae.cauchy_kernel", "gpvae.AttributeVAE.prior"),  # the Gaussian process prior
    8: ("gpvae.gaussian_kl", "gpvae.AttributeVAE.loss"),  # L_KL
    9: ("crossmodal.CrossModalEncoder.loss",),  # in place of L_CME: CRPS of poses, and KL
    # F_θ: (x, d, f_c) -> (c, σ), of the paper's MLP and of the fast field
    10: ("field.Field.query", "mlp_field.PaperField.forward", "fast_field.FastField.forward"),
    11: ("mlp_field.PaperField.loss", "fast_field.FastField.loss"),  # L_photo
}
