"""The dense half of the study of architectures: two photographs, three tasks."""
