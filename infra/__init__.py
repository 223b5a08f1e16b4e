"""What exists in the cloud, as a CDK application. Imports aws_cdk and its like, never `lexora`."""
