#version 300 es
// One Gaussian to one quadrilateral: the local affine (EWA) projection of worldline/splatting/projection.py.
precision highp float;
precision highp sampler2D;
precision highp usampler2D;

uniform sampler2D place;          // x, y, z, opacity
uniform sampler2D shape;          // three texels: (xx, xy, xz, yy), (yz, zz, -, -), (r, g, b, -)
uniform sampler2D harmonics;      // `terms` texels: what view-dependent colour adds
uniform int terms;
uniform mat4 camera_from_world;   // OpenCV axes: x right, y down, z forward
uniform vec4 lens;                // fx, fy, cx, cy in pixels
uniform vec2 size;                // of the image in pixels
uniform vec3 eye;                 // the camera's place in the world

in vec2 corner;                   // (-1, -1) to (1, 1)
in uint gaussian;

out vec2 offset;                  // from the centre, in standard deviations along the ellipse's axes
flat out vec4 color;              // and opacity

const float THRESHOLD = 1.0 / 255.0;
const float BLUR = 0.3;           // square pixels added to every Gaussian

vec4 texel(sampler2D table, int index) { return texelFetch(table, ivec2(index & 2047, index >> 11), 0); }

const float K1 = 0.488602512, K20 = 0.315391565, K21 = 1.092548431, K22 = 0.546274215, K30 = 0.373176333, K31 = 0.457045799, K32 = 1.445305721,
  K33 = 0.590043590, K40 = 0.105785547, K41 = 0.669046544, K42 = 0.473087348, K43 = 1.770130770, K44 = 0.625835735;

// View-dependent colour: real spherical harmonics of degrees 1 to 4 (worldline/splatting/harmonics.py) times their colours.
vec3 seen_along(int i, vec3 d) {
  float x = d.x, y = d.y, z = d.z, zz = z * z;
  float c2 = x * x - y * y, s2 = 2.0 * x * y, c3 = x * c2 - y * s2, s3 = x * s2 + y * c2, c4 = x * c3 - y * s3, s4 = x * s3 + y * c3;
  float q31 = 5.0 * zz - 1.0, q42 = 7.0 * zz - 1.0, q41 = z * (7.0 * zz - 3.0);
  float values[24] = float[24](
    -K1 * y, K1 * z, -K1 * x,
    K22 * s2, -K21 * z * y, K20 * (3.0 * zz - 1.0), -K21 * z * x, K22 * c2,
    -K33 * s3, K32 * z * s2, -K31 * q31 * y, K30 * z * (5.0 * zz - 3.0), -K31 * q31 * x, K32 * z * c2, -K33 * c3,
    K44 * s4, -K43 * z * s3, K42 * q42 * s2, -K41 * q41 * y, K40 * (zz * (35.0 * zz - 30.0) + 3.0), -K41 * q41 * x, K42 * q42 * c2,
    -K43 * z * c3, K44 * c4);
  vec3 sum = vec3(0.0);
  for (int k = 0; k < terms; k++) sum += values[k] * texel(harmonics, terms * i + k).rgb;
  return sum;
}

void main() {
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0); // nowhere, unless it turns out to be seen
  offset = vec2(0.0);
  color = vec4(0.0);
  int i = int(gaussian);
  vec4 where = texel(place, i);
  vec3 p = (camera_from_world * vec4(where.xyz, 1.0)).xyz;
  vec4 first = texel(shape, 3 * i), second = texel(shape, 3 * i + 1);
  mat3 covariance = mat3(first.x, first.y, first.z, first.y, first.w, second.x, first.z, second.x, second.y);

  // The Jacobian is taken no farther out than 0.3 of half the field of view beyond the border.
  vec2 margin = 0.15 * size / lens.xy;
  vec2 t = p.z * clamp(p.xy / p.z, -lens.zw / lens.xy - margin, (size - lens.zw) / lens.xy + margin);
  mat3 rotation = mat3(camera_from_world);
  vec3 row_x = vec3(rotation[0].x, rotation[1].x, rotation[2].x);
  vec3 row_y = vec3(rotation[0].y, rotation[1].y, rotation[2].y);
  vec3 row_z = vec3(rotation[0].z, rotation[1].z, rotation[2].z);
  vec3 along_x = lens.x / p.z * (row_x - t.x / p.z * row_z);
  vec3 along_y = lens.y / p.z * (row_y - t.y / p.z * row_z);
  vec3 spread_x = covariance * along_x, spread_y = covariance * along_y;
  float xx = dot(along_x, spread_x), xy = dot(along_x, spread_y), yy = dot(along_y, spread_y);

  float sharp = xx * yy - xy * xy;
  xx += BLUR;
  yy += BLUR;
  float determinant = xx * yy - xy * xy;
  float opacity = where.w * sqrt(max(sharp / determinant, 0.0)); // dimmed by what the blur has spread (Mip-Splatting)
  if (!(determinant > 0.0) || opacity < THRESHOLD) return;

  // The ellipse in which alpha reaches the threshold.
  float reach = min(3.33, sqrt(2.0 * log(opacity / THRESHOLD)));
  float middle = 0.5 * (xx + yy);
  float apart = sqrt(max(0.25 * (xx - yy) * (xx - yy) + xy * xy, 0.0));
  float major = middle + apart, minor = determinant / major;
  vec2 axis = abs(xy) > 1e-9 * major ? normalize(vec2(major - yy, xy)) : (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0));
  offset = reach * corner;
  vec2 pixel = lens.xy * p.xy / p.z + lens.zw + offset.x * sqrt(major) * axis + offset.y * sqrt(minor) * vec2(-axis.y, axis.x);
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);
  vec3 seen = texel(shape, 3 * i + 2).rgb;
  color = vec4(terms > 0 ? max(seen + seen_along(i, normalize(where.xyz - eye)), 0.0) : seen, opacity);
}
