"""Shaders in GLSL: the light on skin, cloth, eyes and lashes, computed for each pixel.

They work in camera space (x right, y down, z away) and in linear light. Each material is a block of
code that sets `vec3 c`. `Mesh` in stage.py declares its inputs: `place` (the point), `facing` (its
normal, of any length), and the mesh's attributes and uniforms; one uniform is every material's:
`eye`, where the camera stands. When it moves, the lights stay where they are.
"""

import numpy as np


def unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-12)


# Lights: direction towards the light, colour. The camera looks along +z, so the front is -z.
KEY = (np.array([-0.50, -0.55, -0.67]), np.array([0.90, 0.855, 0.79]))
FILL = (np.array([0.72, -0.10, -0.69]), np.array([0.27, 0.285, 0.32]))
RIM = (np.array([0.60, -0.45, 0.66]), np.array([0.50, 0.50, 0.55]))
SKY, GROUND = np.array([0.31, 0.33, 0.36]), np.array([0.22, 0.19, 0.17])


def _vec(v) -> str:
    return "vec3({:.5f}, {:.5f}, {:.5f})".format(*v)


COMMON = (
    "".join(
        f"const vec3 {name}_AT = {_vec(unit(at))}; const vec3 {name} = {_vec(colour)};\n"
        for name, (at, colour) in {"KEY": KEY, "FILL": FILL, "RIM": RIM}.items()
    )
    + f"const vec3 SKY = {_vec(SKY)}; const vec3 GROUND = {_vec(GROUND)};\n"
    + """
float sq(float x) { return x * x; }
float sheen(float nh, float rough) {  // GGX
  float a = rough * rough; a *= a;
  float d = nh * nh * (a - 1.0) + 1.0;
  return a / (3.1416 * d * d);
}
vec3 ambient(vec3 n) { return mix(GROUND, SKY, 0.5 - 0.5 * n.y); }
vec3 wrapped(vec3 facing, vec3 wrap) { return clamp((facing + wrap) / (1.0 + wrap), 0.0, 1.0); }
vec3 shown(vec3 c) {  // a soft shoulder, then the display's power
  c = max(c, 0.0);
  c = mix(c, 1.0 - 0.32 * exp(-(c - 0.68) / 0.32), step(0.68, c));
  return pow(c, vec3(1.0 / 2.2));
}
"""
)


def shown(c: np.ndarray) -> np.ndarray:
    """The tone curve of the shaders: linear light, 0 and more, to the display's 0 to 1."""
    return np.where(c < 0.68, c, 1 - 0.32 * np.exp(-(c - 0.68) / 0.32)) ** (1 / 2.2)


def unshown(d: np.ndarray) -> np.ndarray:
    """The linear light of the display's values; at most 2.8, where the display is full."""
    c = np.clip(d, 0, 0.9998) ** 2.2
    return np.where(c < 0.68, c, 0.68 - 0.32 * np.log((1 - c) / 0.32))


# albedoMap, reliefMap, linesMap: see paint.paint_skin. baked: the sky's share, the key's share,
# the lashes' roots. right, down, away: the head's axes. act: how much brows and smile crease.
SKIN = """
  vec4 paint = texture(albedoMap, tcoordVCVSOutput.st);
  vec4 fixedRelief = texture(reliefMap, tcoordVCVSOutput.st);
  vec4 lines = texture(linesMap, tcoordVCVSOutput.st);
  vec3 albedo = paint.rgb * paint.rgb;
  albedo = mix(albedo, vec3(0.010, 0.006, 0.005), baked.z);
  float lip = fixedRelief.a;
  vec3 smooth_n = normalize(facing);
  float acted = mix(act.x, act.y, lines.a);
  vec3 tilt = (fixedRelief.rgb * 2.0 - 1.0) + acted * (lines.rgb * 2.0 - 1.0);
  tilt = tilt.x * right + tilt.y * down + tilt.z * away;
  vec3 n = normalize(smooth_n + tilt);
  vec3 soft = normalize(smooth_n + 0.45 * tilt);  // red light blurs the relief beneath the skin
  vec3 view = normalize(eye - place);
  float sky = baked.x, key = baked.y;
  vec3 wrap = vec3(0.38, 0.20, 0.15);
  vec3 open = sky + 0.35 * sky * (1.0 - sky) * vec3(1.0, 0.15, 0.0);  // red bounces in hollows
  vec3 lit = key + 0.40 * key * (1.0 - key) * vec3(1.0, 0.1, 0.0);
  vec3 toKey = vec3(dot(soft, KEY_AT), dot(n, KEY_AT), dot(n, KEY_AT));
  vec3 light = KEY * lit * wrapped(toKey, wrap);
  light += FILL * open * wrapped(vec3(dot(soft, FILL_AT)), wrap);
  light += RIM * open * wrapped(vec3(dot(smooth_n, RIM_AT)), 0.6 * wrap);
  light += ambient(soft) * open;
  vec3 c = albedo * light;
  float facingView = clamp(dot(n, view), 0.0, 1.0);
  float grazing = 0.028 + 0.5 * pow(1.0 - facingView, 5.0);
  float rough = mix(0.50, 0.34, lip);
  vec3 halfKey = normalize(KEY_AT + view), halfFill = normalize(FILL_AT + view);
  float nk = clamp(dot(n, halfKey), 0.0, 1.0);
  float s = (0.7 * sheen(nk, rough) + 0.3 * sheen(nk, 0.30)) * key * clamp(toKey.y, 0.0, 1.0);
  float f = sheen(clamp(dot(n, halfFill), 0.0, 1.0), rough) * sky;
  f *= clamp(dot(n, FILL_AT), 0.0, 1.0);
  c += paint.a * 1.6 * grazing * (KEY * s * 1.25 + FILL * f * 1.25 + 0.35 * sky * SKY);
"""

# baked: sky, key, metres below the neckline. A doubled hem runs along the neckline.
CLOTH = """
  vec4 paint = texture(albedoMap, tcoordVCVSOutput.st);
  vec3 tilt = texture(reliefMap, tcoordVCVSOutput.st).rgb * 2.0 - 1.0;
  vec3 albedo = paint.rgb * paint.rgb;
  float below = baked.z;
  float hem = 1.0 - smoothstep(HEM - 0.0008, HEM + 0.0008, below);
  albedo = mix(albedo, trim, hem);
  tilt *= 1.0 - hem;
  albedo *= 1.0 - 0.45 * exp(-sq((below - HEM) / 0.0012));  // its seam
  albedo *= 0.55 + 0.45 * smoothstep(0.0, 0.0022, below);
  vec3 smooth_n = normalize(facing);
  vec3 n = normalize(smooth_n + tilt);
  n.y -= 0.35 * hem * (1.0 - 2.0 * smoothstep(0.0, HEM, below));
  n = normalize(n);
  float sky = baked.x, key = baked.y;
  vec3 wrap = vec3(0.18);
  vec3 light = KEY * key * wrapped(vec3(dot(n, KEY_AT)), wrap);
  light += FILL * sky * wrapped(vec3(dot(n, FILL_AT)), wrap);
  light += RIM * sky * wrapped(vec3(dot(n, RIM_AT)), wrap) + ambient(n) * sky;
  vec3 view = normalize(eye - place);
  float fuzz = pow(1.0 - clamp(dot(n, view), 0.0, 1.0), 3.0);
  vec3 c = albedo * (light + 0.30 * fuzz * sky);
"""

# local: direction on the ball, line of sight along -z. right, down, away: the head's axes.
# lids: heights of the upper and lower lid's edges over the pupil's height at rest, in radii, y
# down; lids.z is the side (1: image right).
EYE = """
  vec3 n = normalize(facing), e = normalize(local), view = normalize(eye - place);
  vec3 inHead = vec3(dot(n, right), dot(n, down), dot(n, away));
  float r = acos(clamp(-e.z, -1.0, 1.0)), a = atan(e.y, e.x);
  float q = r / IRIS;
  float fibre = 0.5 + 0.28 * sin(a * 19.0 + 2.0 * sin(q * 5.0 + seed)) * sin(a * 7.0 + seed)
      + 0.22 * sin(a * 43.0 + 3.0 * sin(q * 7.0));
  vec3 ring = mix(iris * vec3(1.35, 1.05, 0.72), iris, smoothstep(0.40, 0.66, q));
  vec3 colour = ring * (0.42 + 0.70 * fibre) * mix(1.25, 0.85, smoothstep(0.4, 0.9, q));
  float bowl = dot(normalize(vec2(e.x, e.y) + 1e-4), vec2(0.62, 0.78));
  colour *= 1.0 + 0.75 * bowl * smoothstep(0.30, 0.8, q);  // the key, gathered by the cornea
  colour *= mix(1.0, 0.16, smoothstep(0.72, 1.0, q));  // the limbus
  colour *= smoothstep(PUPIL - 0.05, PUPIL + 0.06, q);
  float vein = sin(a * 13.0 + 5.0 * sin(r * 7.0 + seed)) * sin(a * 5.0 + seed);
  vec3 white = vec3(0.74, 0.70, 0.665);
  white = mix(white, vec3(0.70, 0.40, 0.36), 0.12 * max(vein, 0.0) * smoothstep(0.55, 1.1, r));
  white = mix(white, vec3(0.66, 0.38, 0.34), smoothstep(0.70, 1.15, abs(inHead.x)) * 0.6);
  white *= whites;
  vec3 albedo = mix(colour, white, smoothstep(0.90, 1.10, q));
  float curve = 0.34 * inHead.x * inHead.x;
  float under = inHead.y - (lids.x + curve);  // below the upper lid's edge, radii
  float above = lids.y - 0.5 * curve - inHead.y;
  float shade = mix(0.34, 1.0, smoothstep(-0.02, 0.30, under));
  shade *= mix(0.72, 1.0, smoothstep(0.0, 0.18, above));
  shade *= mix(1.0, 0.60, smoothstep(0.45, 0.95, abs(inHead.x)));
  vec3 light = KEY * wrapped(vec3(dot(n, KEY_AT)), vec3(0.45)) * 0.9;
  light += FILL * wrapped(vec3(dot(n, FILL_AT)), vec3(0.45)) + ambient(n);
  vec3 c = albedo * light * shade;
  // Reflections: a soft window up left that the lid can't hide, a faint one right, the tear line.
  vec3 mirror = reflect(-view, n);
  float wet = smoothstep(0.0, 0.10, under) * smoothstep(-0.02, 0.03, above);
  float window = smoothstep(0.962, 0.985, dot(mirror, normalize(vec3(-0.36, -0.26, -0.90))));
  float second = smoothstep(0.975, 0.99, dot(mirror, normalize(vec3(0.42, -0.02, -0.90))));
  c += wet * (0.85 * window + 0.10 * second) * vec3(1.0, 0.98, 0.95);
  float tear = exp(-sq((above - 0.05) / 0.035)) * smoothstep(0.8, 0.3, abs(inHead.x));
  c += 0.16 * tear * KEY;
  c += 0.05 * wet * SKY;
"""

# strand: place along the lid in metres, 0 at the root to 1 at the tip, unused.
LASH = """
  float at = strand.x / 0.0011, u = strand.y;
  float k = fract(sin(floor(at) * 12.99 + seed) * 43758.5);
  float away_ = abs(fract(at) - 0.5) * 2.0;
  float reach = lash * (0.6 + 0.4 * k);
  float root = 0.10 + 0.05 * lash;
  if (u > root && (u > reach || away_ > 0.95 - 0.75 * (u / reach))) discard;
  vec3 c = hue * (0.7 + 0.5 * u);
"""
