"""The method (section 3 of the paper). `EQUATIONS` lists the code that computes each equation."""

# Number of the equation in the paper -> names in this folder, as module.name.
EQUATIONS = {
    1: ("face.FaceModel.vertices", "face.FaceModel.landmarks", "tracking.Fit"),  # 3DMM
    2: ("disentangle.swap_loss",),  # L_rec: mouth and eyes of two faces, swapped
    3: ("sync.contrastive_loss",),  # L_con: aligned and non-aligned audio-mouth pairs
    4: ("gpvae.AttributeVAE.encode",),  # mean and covariance of the posterior of z
    5: ("gpvae.posterior_sample",),  # a sample of the posterior
    6: ("gpvae.AttributeVAE.distance",),  # reconstruction
    7: ("gpvae.cauchy_kernel", "gpvae.AttributeVAE.prior"),  # the Gaussian process prior
    8: ("gpvae.gaussian_kl", "gpvae.AttributeVAE.loss"),  # L_KL
    9: ("crossmodal.CrossModalEncoder.loss",),  # L_CME: head motion and blinks from audio
    10: ("field.Field", "field.Field.query"),  # F_θ: (x, d, f_c) -> (c, σ)
    11: ("field.Field.loss", "field_training.train_field"),  # L_photo
}
