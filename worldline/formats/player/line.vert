#version 300 es
// The recorded cameras as lines in the scene.
precision highp float;
uniform mat4 camera_from_world;
uniform vec4 lens;
uniform vec2 size;
in vec3 point;

void main() {
  vec3 p = (camera_from_world * vec4(point, 1.0)).xyz;
  vec2 scaled = 2.0 * (lens.xy * p.xy + lens.zw * p.z) / size - p.z;
  gl_Position = vec4(scaled.x, -scaled.y, p.z > 1e-3 ? 0.0 : -2.0 * abs(p.z) - 1.0, p.z);
}
