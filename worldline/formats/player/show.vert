#version 300 es
// Bring the finished picture to the canvas.
in vec2 corner;
out vec2 uv;

void main() {
  uv = 0.5 * corner + 0.5;
  gl_Position = vec4(corner, 0.0, 1.0);
}
