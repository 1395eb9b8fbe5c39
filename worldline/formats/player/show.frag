#version 300 es
precision highp float;
uniform sampler2D picture;
in vec2 uv;
out vec4 light;

void main() { light = vec4(texture(picture, uv).rgb, 1.0); }
