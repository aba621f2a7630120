"""The method (section 3 of the paper). `EQUATIONS` says which code is which equation."""

# Equation of the paper -> what computes it, as module.name in this folder.
EQUATIONS = {
    1: ("face.FaceModel.vertices", "face.FaceModel.landmarks", "tracking.Fit"),  # 3DMM
    2: ("disentangle.swap_loss",),  # L_rec: mouth and eyes of two faces, crossed
    3: ("sync.contrastive_loss",),  # L_con: which sound belongs to which mouth
    4: ("gpvae.AttributeVAE.encode",),  # the posterior of z
    5: ("gpvae.posterior_sample",),  # and a sample of it
    6: ("gpvae.AttributeVAE.distance",),  # reconstruction
    7: ("gpvae.cauchy_kernel", "gpvae.AttributeVAE.prior"),  # the Gaussian process prior
    8: ("gpvae.gaussian_kl", "gpvae.AttributeVAE.loss"),  # KL term
    9: ("crossmodal.CrossModalEncoder.loss",),  # head motion and blinks from sound
    10: ("field.Field", "field.Field.query"),  # F_θ: (x, d, f_c) -> (c, σ)
    11: ("field.Field.loss", "field_training.train_field"),  # L_photo
}
